-- One server, three databases; run once, by the image, when the volume is empty.
CREATE DATABASE bridge;
CREATE DATABASE thingsboard;
CREATE DATABASE hawkbit;

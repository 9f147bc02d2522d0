"""``python -m enroll`` is ``iot-enroll``."""

import sys

from enroll.cli import main

sys.exit(main())

SUMMARY = "Gives a device its identity at first boot"
DESCRIPTION = "Makes the device's keys, has a bridge certify them, connects over mutual TLS, raises the WireGuard tunnel."
SECTION = "net"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# The layer is part of the project's sources and takes the agent from beside itself: no fetching, no second version.
FILESEXTRAPATHS:prepend := "${THISDIR}/../../../../..:"
SRC_URI = " \
    file://LICENSE;subdir=source \
    file://enroll;subdir=source \
    file://docs/device.md;subdir=source \
    file://packaging/iot-enroll.conf;subdir=source \
    file://packaging/agent/stamp.py;subdir=source \
    file://packaging/agent/iot-enroll;subdir=source \
    file://packaging/systemd;subdir=source \
"
# scarthgap unpacks into WORKDIR and has no UNPACKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/source"

inherit python3native python3-dir systemd features_check

REQUIRED_DISTRO_FEATURES = "systemd"
SYSTEMD_PACKAGES = "${PN} ${PN}-status"
SYSTEMD_SERVICE:${PN} = "iot-enroll.timer"
SYSTEMD_SERVICE:${PN}-status = "iot-enroll-status.service"

do_configure[noexec] = "1"

# Not by a wheel: the project's has the bridge's packages and commands, and asks for what only the bridge needs.
do_compile() {
    SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH}" ${PYTHON} packaging/agent/stamp.py enroll/built.py
}

do_install() {
    for module in $(find enroll -name '*.py'); do
        install -D -m 0644 $module ${D}${PYTHON_SITEPACKAGES_DIR}/$module
    done
    ${PYTHON} -m compileall -q --invalidation-mode unchecked-hash -s ${D} -p / ${D}${PYTHON_SITEPACKAGES_DIR}/enroll

    # The agent asks for its version there.
    info=${D}${PYTHON_SITEPACKAGES_DIR}/iot_bridge-${PV}.dist-info
    install -d $info
    printf 'Metadata-Version: 2.1\nName: iot-bridge\nVersion: %s\n' "${PV}" > $info/METADATA

    install -D -m 0755 packaging/agent/iot-enroll ${D}${bindir}/iot-enroll
    install -D -m 0755 packaging/systemd/after-run ${D}${nonarch_libdir}/iot-enroll/after-run
    install -D -m 0600 packaging/iot-enroll.conf ${D}${sysconfdir}/iot-enroll.conf
    for unit in iot-enroll.service iot-enroll.timer iot-enroll-retry.timer iot-enroll-status.service; do
        install -D -m 0644 packaging/systemd/$unit ${D}${systemd_system_unitdir}/$unit
    done
}

PACKAGES =+ "${PN}-status"
FILES:${PN}-status = "${systemd_system_unitdir}/iot-enroll-status.service"
FILES:${PN} += " \
    ${PYTHON_SITEPACKAGES_DIR}/enroll \
    ${PYTHON_SITEPACKAGES_DIR}/iot_bridge-${PV}.dist-info \
    ${nonarch_libdir}/iot-enroll \
    ${systemd_system_unitdir} \
"
CONFFILES:${PN} = "${sysconfdir}/iot-enroll.conf"

RDEPENDS:${PN} = " \
    python3-core \
    python3-crypt \
    python3-cryptography \
    python3-ctypes \
    python3-datetime \
    python3-email \
    python3-fcntl \
    python3-io \
    python3-json \
    python3-math \
    python3-netclient \
    python3-paho-mqtt \
    python3-pyjwt \
    python3-resource \
"
RDEPENDS:${PN}-status = "${PN}"
RRECOMMENDS:${PN} = "wireguard-tools"

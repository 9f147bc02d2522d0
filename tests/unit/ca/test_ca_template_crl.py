from dataclasses import replace

import pytest

from ca.models import Provisioner
from ca.template import DEVICE_TEMPLATE, device_template, judge

URL = "https://ca.example.com/1.0/crl"
OURS = Provisioner("iot-bridge", "kid", {}, template=DEVICE_TEMPLATE, disable_renewal=True)


def test_a_crl_distribution_point_makes_no_other_template() -> None:
    template = device_template(URL)
    assert f'"crlDistributionPoints": ["{URL}"]' in template
    assert judge(replace(OURS, template=template)) == ()
    assert judge(replace(OURS, template=template.replace("\n", "\r\n\t"))) == ()


@pytest.mark.parametrize("url", ["", "ldap://ca/crl", 'https://ca/"]}{{ .Token }}', "https://ca/\n", "https://ca/ b"])
def test_what_is_no_crl_url(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        device_template(url)


@pytest.mark.parametrize(
    "line",
    [
        ',\n  "crlDistributionPoints": ["https://ca/crl"], "basicConstraints": {"isCA": true}\n}',
        ',\n  "crlDistributionPoints": [{{ toJson .Token.url }}]\n}',
        ',\n  "ocspServer": ["https://ca/crl"]\n}',
    ],
)
def test_other_lines_still_make_another_template(line: str) -> None:
    template = DEVICE_TEMPLATE.removesuffix("\n}") + line
    assert "is not the bridge's" in str(judge(replace(OURS, template=template))[0])

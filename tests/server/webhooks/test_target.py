"""Where webhooks may go, as far as it is known at submit."""

from urllib.parse import quote

import pytest

from server.errors import InvalidInput
from server.untrusted.addresses import OutboundPolicy
from server.webhooks.target import check_webhook_url
from tests.harness.harmless import harmless
from tests.harness.live_server import APP, Server, example
from tests.harness.outbound import REFUSED

BAD_URLS = [
    ("ftp://example.com/x", "url_scheme"),
    ("file:///etc/passwd", "url_scheme"),
    ("javascript:alert(1)", "url_scheme"),
    ("not a url", "url_scheme"),
    ("//example.com/x", "url_scheme"),
    ("http://[::1", "url_parsing"),
    ("http://exa\tmple.com", "url_parsing"),
    ("http://127.0.0.1:99999/", "url_parsing"),
    ("https://127.0.0.1:65536/", "url_parsing"),
    ("http://127.0.0.1:0/", "url_parsing"),
    ("http://", "value_error"),
    ("http://user:password@example.com/", "value_error"),
    ("http://10.0.0.1/", "value_error"),
    ("http://169.254.169.254/latest/", "value_error"),
    ("http://2852039166/latest/", "value_error"),
    ("http://[fd00:ec2::254]/", "value_error"),
    (f"http://example.com/{'x' * 2100}", "value_error"),
]


@pytest.mark.parametrize(("url", "kind"), BAD_URLS)
def test_a_bad_webhook_is_refused_at_submit(impatient: Server, url: str, kind: str) -> None:
    with harmless(impatient):
        answer = impatient.http.post(f"/queue/{APP}?fal_webhook={quote(url, safe='')}", json=example())
    assert answer.status_code == 422
    (item,) = answer.json()["detail"]
    assert (item["loc"], item["type"]) == (["query", "fal_webhook"], kind)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://localhost/", "http://a.localhost./", "http://0x7f.1/", "http://[::1]/",
     "http://[::ffff:127.0.0.1]/", "http://example.com:8080/", "https://example.com:22/"],
)  # fmt: skip
def test_private_places_and_ports_are_refused_unless_listed(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_webhook_url(url, OutboundPolicy())


@pytest.mark.parametrize("url", REFUSED)
def test_what_no_image_may_come_from_no_webhook_may_go_to(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_webhook_url(url, OutboundPolicy())


@pytest.mark.parametrize("url", ["http://example.com/x", "https://example.com:443/x", "http://93.184.216.34/x"])
def test_public_places_are_taken(url: str) -> None:
    assert check_webhook_url(url, OutboundPolicy()) == url

"""Who reaches the app: the browser that it opened, and nobody else."""

import io
import re
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from app_in_process import App


pytest.importorskip("nicegui")
httpx = pytest.importorskip("httpx")
EVERYWHERE = ("/", "/glossary", "/recording/1", "/run/x", "/report/x", "/nothing")
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport="
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[App]:
    beside = tmp_path_factory.mktemp("app")
    made = App(beside / "results", beside / "stderr.txt")
    yield made
    made.close()


@pytest.fixture
def client(app) -> Iterator:
    """A browser that has opened the address with the token."""
    with httpx.Client(base_url=app.url, follow_redirects=True, timeout=60) as made:
        assert made.get(app.address()).status_code == 200
        yield made


def _files(page: str) -> list[str]:
    """Scripts and styles of a page."""
    return sorted(set(re.findall(r'(?:src|href)="(/_nicegui/[^"]+)"', page)))


def _opens_socket(client, headers) -> int:
    request = {"headers": UPGRADE | headers}
    with client.stream("GET", f"{SOCKET}websocket", **request) as response:
        return response.status_code


def test_the_token_moves_from_the_address_to_a_cookie(app, client):
    token = app.address().partition("?")[2]
    first = httpx.get(f"{app.url}/glossary?x=1&{token}")
    assert (first.status_code, first.headers["location"]) == (303, "/glossary?x=1")
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert token.partition("=")[2].lower() not in cookie
    token = app.address().partition("?")[2]
    away = httpx.get(f"{app.url}//elsewhere.example/?{token}")
    assert away.headers["location"] == "/elsewhere.example/"
    assert "token" not in str(client.get("/").url)


def test_a_token_opens_the_app_once(app, client):
    address = app.address()
    assert httpx.head(address).status_code == 303  # looks ahead, and gets no cookie
    assert httpx.post(address).status_code == 403
    first = httpx.get(address)
    assert first.status_code == 303 and "set-cookie" in first.headers
    another = app.address()
    assert another != address  # the terminal shows it, since somebody came back
    for _ in range(2):
        second = httpx.get(address)
        assert second.status_code == 403 and "set-cookie" not in second.headers
        assert "new address" in second.text
    assert client.get(address).status_code == 200  # it has a cookie
    assert httpx.get(another).status_code == 303
    assert sum("Results are kept in" in line for line in app.said) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "elsewhere.example"}, 400),
        ({"Host": "127.0.0.1"}, 400),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
    ids=str,
)
def test_other_sites_are_refused_everywhere(client, headers, status):
    files = _files(client.get("/").text)
    assert files
    for path in (*EVERYWHERE, *files, f"{SOCKET}polling"):
        assert client.get(path, headers=headers).status_code == status, path
        assert client.post(path, headers=headers).status_code == status, path
    assert _opens_socket(client, headers) == 403


@pytest.mark.parametrize("given", ("", "?token=wrong", "?token=%C3%A9"))
def test_nothing_answers_without_the_token(app, client, given):
    files = _files(client.get("/").text)
    cookies = {client.cookies.jar.__iter__().__next__().name: "wrong"} if given else {}
    with httpx.Client(base_url=app.url, cookies=cookies) as stranger:
        for path in (*EVERYWHERE, *files):
            found = stranger.get(f"{path}{given}")
            assert found.status_code == 403, path
            assert "terminal" in found.text
        assert stranger.get(f"{SOCKET}polling").status_code == 403
        assert stranger.post("/upload/x").status_code == 403
        assert _opens_socket(stranger, {}) == 403
    assert _opens_socket(client, {"Origin": app.url}) == 101


def test_no_page_can_be_shown_in_a_frame(client):
    for path in (*EVERYWHERE, *_files(client.get("/").text)[:1]):
        headers = client.get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def _upload(client, name: str, content) -> tuple[int, str]:
    (place,) = re.findall(r"/upload/[\w-]+", client.get("/").text)
    found = client.post(place, files={"file": (name, content)})
    return found.status_code, found.text


def test_uploads_are_read_and_their_size_is_limited(client, app):
    times = b"time_ms\n" + b"".join(b"%d\n" % x for x in 100 * np.arange(60))
    assert _upload(client, "x.csv", times)[0] == 200
    assert "x.csv" in client.get("/recording/2").text
    status, said = _upload(client, "x.csv", io.BytesIO(bytes(257 * 2**20)))
    assert status == 413
    assert "at most 256 MB" in said
    assert client.post("/upload/nothing").status_code == 404
    assert client.get("/").status_code == 200


def test_an_upload_without_a_stated_size_is_limited_too(client, app):
    (place,) = re.findall(r"/upload/[\w-]+", client.get("/").text)
    start = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.csv"\r\n\r\n'

    def endless() -> Iterator[bytes]:
        yield start
        for _ in range(300):
            yield bytes(2**20)

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(place, content=endless(), headers=kind).status_code == 413
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "body", ({"data": {"a": "1"}}, {"content": b"x"}, {"json": {}}), ids=str
)
def test_what_is_no_upload_is_refused(client, body):
    (place,) = re.findall(r"/upload/[\w-]+", client.get("/").text)
    assert client.post(place, **body).status_code == 400
    zipped = io.BytesIO()
    zipfile.ZipFile(zipped, "w").close()
    assert _upload(client, "x.zip", zipped.getvalue())[0] == 200  # the page says why

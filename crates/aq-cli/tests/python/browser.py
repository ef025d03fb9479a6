"""A headless Chromium, driven by chromedriver: pages as a desktop or a phone shows them, light or dark."""
import base64
import io
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest

ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "about:blank"]


def found():
    """The browser and its driver, or the reason why there are none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("needs Chromium and chromedriver: `apt-get install chromium chromium-driver`")
    return browser, driver


class Browser:
    def __init__(self, profile):
        browser, driver = found()
        self.driver = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        port = next(line.split("port ")[1].rstrip(".\n") for line in self.driver.stdout if "started successfully on port" in line)
        self.url = f"http://127.0.0.1:{port}/session"
        options = {"binary": browser, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        self.session = self.post("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.command("url", {"url": "about:blank"})

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as e:
            raise AssertionError(e.read().decode()) from e

    def command(self, name, body):
        return self.post(f"/{self.session}/{name}", body)

    def cdp(self, name, **parameters):
        return self.command("goog/cdp/execute", {"cmd": name, "params": parameters})

    def show(self, path, width, dark):
        """Loads a file as a window of that width shows it."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])
        self.command("url", {"url": path.as_uri()})
        deadline = time.monotonic() + 60
        while self.ask("return document.readyState") != "complete" and time.monotonic() < deadline:
            time.sleep(0.02)

    def ask(self, script):
        return self.command("execute/sync", {"script": script, "args": []})

    def picture(self, box=None):
        """A screenshot of the whole page, or of a box in it."""
        from PIL import Image
        clip = {} if box is None else {"clip": {**box, "scale": 1}}
        data = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True, **clip)["data"]
        return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")

    def requests(self):
        """Addresses that were asked for since the last call."""
        messages = (json.loads(entry["message"])["message"] for entry in self.command("se/log", {"type": "performance"}))
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def close(self):
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{self.session}", method="DELETE"), timeout=30)
        self.driver.terminate()
        self.driver.wait()
        time.sleep(0.1)

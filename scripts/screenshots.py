#!/usr/bin/env python3
"""Take the pictures of docs/images: each page of a seeded fleet, in light and dark, English and French.

Names of pages as arguments take only those. Needs Chromium and the development dependencies. Optimises with
pngquant where it is installed.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, sync_playwright  # noqa: E402
from saveos.core.settings import Settings  # noqa: E402
from saveos.upkeep.opening import open_database  # noqa: E402

from tests.dashboard.conftest import FLAGS, serve  # noqa: E402
from tests.dashboard.seed import PASSWORD, Seeded, maintain, seed  # noqa: E402

IMAGES = ROOT / "docs/images"
SIZE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 800}
PAGES = {
    "login": "/login",
    "overview": "/",
    "hosts": "/hosts",
    "host": "/hosts/{host}",
    "host-policy": "/hosts/{host}/policy",
    "add-host": "/hosts/new",
    "enrol": "/hosts/enrol",
    "enrol-waiting": "/hosts/enrol/waiting",
    "jobs": "/jobs",
    "job": "/jobs/{failed_job}",
    "alerts": "/alerts",
    "maintenance": "/maintenance",
    "maintenance-cleanup": "/maintenance/cleanup",
    "maintenance-validation": "/maintenance/validation",
    "maintenance-dependencies": "/maintenance/dependencies",
    "policies": "/policies",
    "policy": "/policies/{policy_id}",
    "policy-form": "/policies/{policy_id}/edit",
    "schedules": "/schedules",
    "archives": "/hosts/{host}/archives",
    "archive": "/archives/{archive_id}?path=/etc",
    "restore": "/archives/{archive_id}/restore?paths=/etc/nginx",
    "restores": "/restores",
    "settings": "/settings",
}
LOOKS = [("light", "en"), ("dark", "fr"), ("dark", "en"), ("light", "fr")]
ON_PHONE = ("overview", "hosts", "job", "alerts")


def take(browser: Browser, url: str, made: Seeded, look: tuple[str, str], size: dict[str, int]) -> list[str]:
    """Take the pictures of one look; returns their paths."""
    taken = []
    theme, language = look
    phone = size is PHONE
    context = browser.new_context(viewport=size, timezone_id="Europe/Paris", reduced_motion="reduce")
    wanted = {"theme": theme, "lang": language, "tz": "Europe%2FParis"}
    context.add_cookies([{"name": key, "value": value, "url": url} for key, value in wanted.items()])
    page = context.new_page()
    for name, path in PAGES.items():
        if (phone and name not in ON_PHONE) or (sys.argv[1:] and name not in sys.argv[1:]):
            continue
        if name != "login" and not any(each["name"] == "saveos_session" for each in context.cookies()):
            context.request.post(f"{url}/api/v1/auth/login", data={"name": "marie", "password": PASSWORD})
        page.goto(url + path.format(**vars(made)))
        page.wait_for_timeout(600)
        suffix = "phone" if phone else f"{theme}-{language}"
        taken.append(str(IMAGES / f"{name}-{suffix}.png"))
        page.screenshot(path=taken[-1])
    context.close()
    return taken


def main() -> None:
    """Seed a fleet in a temporary home, serve it, and take every picture."""
    chromium = shutil.which("chromium") or sys.exit("Chromium is missing: apt install chromium")
    subprocess.run([sys.executable, ROOT / "scripts/assets.py"], check=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(Settings(home=Path(folder) / "home"))
        with database.session() as session:
            made = seed(session, 60)
            maintain(session, made.tenant_id)
        process, url = serve(Path(folder) / "home")
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                pictures = [each for look in LOOKS for each in take(browser, url, made, look, SIZE)]
                pictures += take(browser, url, made, ("light", "en"), PHONE)
                browser.close()
        finally:
            process.terminate()
            process.wait(15)
            database.close()
    if optimiser := shutil.which("pngquant"):
        command = [optimiser, "--force", "--skip-if-larger", "--ext", ".png", "--speed", "1", *pictures]
        subprocess.run(command, check=False)
    total = sum(path.stat().st_size for path in IMAGES.glob("*.png"))
    print(f"{len(list(IMAGES.glob('*.png')))} pictures, {total // 1024} KiB, in {IMAGES.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

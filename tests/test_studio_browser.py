"""The studio in a real browser: faces are edited, photographs uploaded, edits learned and compared."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from benchmarks.browser import Served, browser, find_browser
from coral_jax import weights
from coral_jax.artifact import load_edit, save_edit
from coral_jax.evaluation.plan import cell_folder
from coral_jax.evaluation.tables import write_tables
from coral_jax.latents import w_plus_of_seeds
from coral_jax.photos.align import whole
from coral_jax.photos.photo import Photo, save_photo
from coral_jax.training.workdir import finished

if find_browser() is None:
    pytest.skip("no Chromium, or no Playwright to drive it", allow_module_level=True)

PATIENCE = 300_000  # milliseconds: on a busy machine, what is learned compiles for minutes


@pytest.fixture(scope="module")
def runs(trained, weights_dir, tmp_path_factory):
    """A runs folder with a finished run, an evaluation of it, and, first on the shelf, an edit of it that shows."""
    folder = tmp_path_factory.mktemp("studio") / "runs"
    evaluation = folder / "compared"
    cell = cell_folder(evaluation, "attention_mapper", "surprised")
    for place in (folder / "surprised", cell):
        shutil.copytree(trained.folder, place)
    edit = load_edit(trained.folder, weights_dir)
    save_edit(folder / "strong" / "edit", replace(edit, settings=replace(edit.settings, strength=60.0)))
    grey = np.full((1, 16, 16, 3), 128, np.uint8)
    weights.save_tensors(cell / "samples.safetensors", {"original": grey, "edited": grey, "where": grey}, {})
    metrics = {"success": {"value": 0.5, "low": 0.4, "high": 0.6}}
    record = {"method": "attention_mapper", "prompt": "surprised", "metrics": metrics}
    write_tables(evaluation, [record], {"domain": "tiny"})
    return folder


@pytest.fixture(scope="module")
def photos(trained, weights_dir, runs):
    """A folder of photos, with one of a generated face: inverted, for its codes are known."""
    domain = load_edit(trained.folder, weights_dir).domain
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    w_plus = w_plus_of_seeds(domain.generator, [4], 0.8)[0]
    photo = Photo("me", picture, "0" * 64, whole(len(picture)), "tiny", domain.fingerprint, 0.5, w_plus)
    save_photo(runs.parent / "photos" / "me", photo)
    return runs.parent / "photos"


@pytest.fixture(scope="module")
def studio(runs, photos, weights_dir):
    with Served(runs, f"--photos={photos}", f"--weights_dir={weights_dir}") as served:
        yield served


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def page(studio, chromium):
    """A page with the tiny domain, whose first picture is drawn; it ends without errors."""
    made = chromium.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    made.set_default_timeout(PATIENCE)
    wrong = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.goto(f"{studio.url}/#tiny")
    made.locator("#stage[data-drawn]").wait_for()
    made.locator(".layer").first.wait_for()
    yield made
    made.close()
    assert not wrong


def drawn(page, action):
    """Do something that draws the picture anew, and wait until it is there: the picture's bytes."""
    before = page.locator("#stage").get_attribute("data-drawn")
    action()
    page.locator(f"#stage:not([data-drawn='{before}'])").wait_for()
    until = time.monotonic() + 60  # newer pictures may follow the first
    while time.monotonic() < until:
        last = page.locator("#stage").get_attribute("data-drawn")
        page.wait_for_timeout(150)
        if page.locator("#stage").get_attribute("data-drawn") == last and page.locator("#busy").is_hidden():
            break
    return shown(page, "#after")


def shown(page, image):
    """The pixels of an image in the page, RGBA."""
    return bytes(page.locator(image).evaluate(
        "image => { const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);"
        " const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);"
        " return [...context.getImageData(0, 0, canvas.width, canvas.height).data]; }"
    ))  # fmt: skip


def pixels(path):
    """The pixels of a picture's file, RGBA."""
    with Image.open(path) as image:
        return image.convert("RGBA").tobytes()


def slide(page, selector, value):
    """Move a slider as a mouse does: input, then change."""
    page.locator(selector).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true}));"
        " slider.dispatchEvent(new Event('change', {bubbles: true})); }", value
    )  # fmt: skip


def saved(page, button, folder):
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def redraw(recipe, runs, photos, weights_dir):
    command = [sys.executable, "-m", "coral_jax.edit", f"--recipe={recipe}", f"--out={recipe.parent / 'again'}"]
    command += [f"--runs={runs}", f"--photos={photos}", f"--weights_dir={weights_dir}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return recipe.parent / "again" / "recipe.png"


def test_a_face_is_edited_and_drawn_again_by_command(page, runs, photos, weights_dir, tmp_path):
    first = shown(page, "#after")
    picked = drawn(page, lambda: page.click("#gallery button[data-seed='3']"))
    slid = drawn(page, lambda: slide(page, ".alpha input", "-0.8"))
    strongest = page.locator(".layer.matters").first
    number = strongest.get_attribute("data-layer")
    switched = drawn(page, strongest.click)
    page.locator(f".layer[data-layer='{number}'][aria-pressed='false']").wait_for()
    page.click("[data-tool=paint]")
    box = page.locator("#stage").bounding_box()

    def stroke():
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.3 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
        page.mouse.up()

    painted = drawn(page, stroke)
    assert len({first, picked, slid, switched, painted}) == 5
    assert drawn(page, lambda: page.click("#undo")) == switched
    assert drawn(page, lambda: page.keyboard.press("Control+z")) == slid
    assert drawn(page, lambda: page.click("#redo")) == switched
    assert drawn(page, lambda: page.click("#redo")) == painted and page.locator("#redo").is_disabled()
    picture, recipe = saved(page, "#save-picture", tmp_path), saved(page, "#save-recipe", tmp_path)
    content = json.loads(recipe.read_text())
    assert content["face"]["seed"] == 3 and content["edits"][0]["alpha"] == -0.8
    assert content["edits"][0]["layers_off"] == [int(number)] and content["edits"][0]["brush"]
    assert pixels(picture) == painted
    assert redraw(recipe, runs, photos, weights_dir).read_bytes() == picture.read_bytes()


def test_two_edits_and_the_split(page):
    alone = shown(page, "#after")
    both = drawn(page, lambda: page.click("#add"))
    assert page.locator(".applied").count() == 2 and both != alone
    assert drawn(page, lambda: page.locator(".remove").nth(1).click()) == alone
    slide(page, "#split", "40")
    assert page.locator("#before").evaluate("image => getComputedStyle(image).clipPath") == "inset(0px 60% 0px 0px)"
    assert page.locator("#split-line").is_visible()


def test_the_domain_chosen_last_counts(page):
    """Though the answer about the one before comes later."""
    held = []

    def hold(route):
        held.append(route) if "toons" in route.request.post_data else route.continue_()

    def about(name):
        return page.expect_response(lambda answer: answer.url.endswith("/domain") and name in answer.request.post_data)

    page.route("**/domain", hold)
    with about("tiny"):
        page.locator("#domain").evaluate(
            "domain => { for (const name of ['toons', 'tiny']) {"
            " domain.value = name; domain.dispatchEvent(new Event('change')); } }"
        )
    with about("toons"):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert page.input_value("#domain") == "tiny"
    assert not any("toons:" in text for text in page.locator("#shelf option").all_inner_texts())


def test_photographs_are_picked_and_uploaded(page, runs, photos, weights_dir, tmp_path):
    drawn(page, lambda: page.click("[data-photo=me]"))
    edited = drawn(page, lambda: slide(page, ".alpha input", "1.4"))
    assert edited != shown(page, "#before")
    picture, recipe = saved(page, "#save-picture", tmp_path), saved(page, "#save-recipe", tmp_path)
    assert json.loads(recipe.read_text())["face"]["photo"] == "me"
    assert redraw(recipe, runs, photos, weights_dir).read_bytes() == picture.read_bytes()
    page.set_input_files("#upload", {"name": "note.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.get_by_text("'note.png' cannot be read as a picture").wait_for()
    mine = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 20, 3), np.uint8)).save(mine)
    page.set_input_files("#upload", mine)
    ended = page.locator("[data-photo=mine][aria-pressed=true]").or_(page.get_by_text("Error", exact=False))
    ended.first.wait_for()
    assert page.locator("[data-photo=mine]").count() == 1, page.locator("#upload-state").inner_text()
    drawn(page, lambda: slide(page, ".alpha input", "-1.4"))
    page.get_by_role("button", name="keep").click()
    page.get_by_text("kept as mine").wait_for()
    assert (photos / "mine" / "photo.json").is_file()


def test_an_edit_is_learned_stopped_and_taken_up_again(page, runs, studio):
    page.click("#tab-learn")
    page.fill("#prompt", "a surprised face")
    page.locator("#method").evaluate(  # at once, so that the answer with the method's own steps comes after the typed ones
        "method => { method.value = 'attention_global'; method.dispatchEvent(new Event('change'));"
        " const steps = document.getElementById('steps'); steps.value = 300; steps.dispatchEvent(new Event('input')); }"
    )  # fmt: skip
    page.get_by_text("300 steps").wait_for()
    assert page.input_value("#steps") == "300"
    page.click("#start")
    card = page.locator(".training[data-name=a_surprised_face]")
    card.locator(".state", has_text="learning").wait_for()
    card.locator("[data-action=pause]").click()
    card.locator(".state", has_text="paused").wait_for()
    card.locator("[data-action=stop]").click()
    card.locator(".state", has_text="stopped").wait_for()
    folder = runs / "a_surprised_face"
    assert finished(folder) is None and any((folder / "checkpoints").iterdir())
    steps = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 0 < steps < 300
    card.locator("[data-action=go_on]").click()
    card.locator(".state", has_text="finished").wait_for()
    assert finished(folder)["resumed_from"] == steps and card.locator("img").is_visible()
    page.click("#tab-edit")
    page.locator("#shelf option[value=a_surprised_face]").wait_for(state="attached")


def test_an_evaluation_is_compared_and_opened(page):
    page.click("#tab-compare")
    page.get_by_text("0.50 [0.40, 0.60]").wait_for()
    page.locator("#sheets img").wait_for()
    page.locator("[data-edit='compared/attention_mapper/surprised']").click()
    page.locator(".applied small", has_text="compared/attention_mapper/surprised").wait_for()
    assert page.locator("#edit").is_visible() and page.locator(".applied").count() == 1


def test_a_closed_page_is_forgotten(studio, chromium):
    made = chromium.new_page()
    with made.expect_request("**/api/domain") as sent:
        made.goto(f"{studio.url}/#tiny")
    token = sent.value.headers["x-studio-session"]
    assert studio.ask("api/alive", session=token)[0] == 204
    made.goto("about:blank")
    until = time.monotonic() + 10
    while studio.ask("api/alive", session=token)[0] != 410 and time.monotonic() < until:
        time.sleep(0.1)
    assert studio.ask("api/alive", session=token)[0] == 410
    made.close()

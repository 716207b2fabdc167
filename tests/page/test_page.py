"""Drives the page as a person does: types, chooses, zooms, copies, gives a key."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.clients.environments import python_environment
from tests.service.conftest import BLOCK, HIDDEN, LABELS
from tests.service.processes import Process

from .waits import wait_for_government, wait_for_match, wait_for_text

pytestmark = pytest.mark.page

QUESTION = Path(__file__).parents[2] / "examples" / "state_of_the_union" / "question.json"
QUOTES = 'l\'été "x" $HOME `id` %s !! \\ fin'
MINUS = "\N{MINUS SIGN}"
TEXT = "le navire quittera le port tôt demain matin"
ROW = [round(0.1 * i - 0.3, 1) for i in range(HIDDEN)]
OTHER_ROW = [round(0.4 - 0.1 * i, 1) for i in range(HIDDEN)]


def top_k(service, bundle: str, **query) -> dict:
    response = service.post(f"/v1/models/{bundle}/top_k", json=query)
    assert response.status_code == 200, response.text
    return response.json()["results"][0]


def expect_bars(page, result: dict) -> None:
    """Wait until the bars are those of a result."""
    labels = result.get("labels") or [str(target) for target in result["targets"]]
    page.wait_for_function(
        """labels => JSON.stringify([...document.querySelectorAll("#bars .bar-label")]
            .map(one => one.textContent)) === JSON.stringify(labels)""",
        arg=labels,
    )
    numbers = [float(text) for text in page.locator("#bars .bar-number").all_inner_texts()]
    assert numbers == pytest.approx(result["probabilities"], rel=6e-3)


def bars_of(page) -> list[str]:
    return page.locator("#bars .bar-label").all_inner_texts()


def test_typed_text_becomes_bars_while_it_is_typed(open_page, service):
    page = open_page(bundle="language")
    page.fill("#input", "")
    for end in range(4, len(TEXT) + 1, 13):
        page.locator("#input").press_sequentially(TEXT[max(0, end - 13) : end])
        expect_bars(page, top_k(service, "language", inputs=[TEXT[:end]]))
    facts = page.inner_text("#answer-facts")
    assert re.fullmatch(
        r"exact · \d+ blocks? opened · [\d.]+ ms computing · [\d.]+ ms waiting · [\d.]+ ms in all"
        r" · a full bar is [\d.e-]+",
        facts,
    )
    best = top_k(service, "language", inputs=[TEXT])["labels"][0]
    wait_for_text(page, "#path", f"log p({best})")  # over the nodes of a binary tree


@pytest.mark.parametrize(
    "pasted",
    [
        ", ".join(map(str, ROW)),
        ";".join(map(str, ROW)) + "\n",
        "\t".join(map(str, ROW)),
        json.dumps(ROW),
        json.dumps({"inputs": [ROW], "k": 5}),
    ],
)
def test_numbers_are_pasted_in_any_form(open_page, service, pasted):
    page = open_page(bundle="words")
    page.fill("#input", pasted)
    expect_bars(page, top_k(service, "words", inputs=[ROW]))


def test_k_threshold_and_version_are_those_of_the_fields(open_page, service):
    page = open_page(bundle="words")
    page.fill("#input", json.dumps(ROW))
    page.fill("#k", "3")
    expect_bars(page, top_k(service, "words", inputs=[ROW], k=3))
    page.fill("#threshold", "0.05")
    result = top_k(service, "words", inputs=[ROW], k=3, threshold=0.05)
    expect_bars(page, result)
    page.fill("#k", "1")
    page.get_by_text("more than 1 are above the threshold").wait_for()
    page.select_option("#request-language", "triton")
    assert "'threshold': 0.05" in page.inner_text("#request").replace('"', "'")
    page.fill("#threshold", "")
    page.select_option("#version", "1")
    wait_for_text(page, "#facts", "1 of 1, 2")
    page.fill("#input", json.dumps(ROW))
    expect_bars(page, top_k(service, "words", inputs=[ROW], version=1))


def test_an_older_answer_never_replaces_a_newer_one(open_page, service):
    page = open_page(bundle="words")
    expect_bars(page, top_k(service, "words", inputs=[read_row(page)]))
    held = []

    def hold_the_first(route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/top_k", hold_the_first)
    page.fill("#input", json.dumps(ROW))
    page.wait_for_timeout(100)
    page.fill("#input", json.dumps(OTHER_ROW))
    newest = top_k(service, "words", inputs=[OTHER_ROW])
    expect_bars(page, newest)
    older = top_k(service, "words", inputs=[ROW])
    assert older["targets"] != newest["targets"]
    held[0].fulfill(json={"model": "words", "version": "2", "results": [older]})
    page.wait_for_timeout(300)
    assert bars_of(page) == newest["labels"]


def read_row(page) -> list[float]:
    return [float(number) for number in page.input_value("#input").split(",")]


def test_an_error_is_the_services_sentence(open_page):
    page = open_page(bundle="words", refused=2)
    page.fill("#input", "1, 2, 3")
    page.get_by_text(f"inputs row 0: expected {HIDDEN} numbers, got 3", exact=True).wait_for()
    assert "old" in page.get_attribute("#bars", "class")
    page.fill("#input", "1, x")
    page.get_by_text('input: expected numbers, got "x" at position 1', exact=True).wait_for()
    page.fill("#input", json.dumps(ROW))
    page.wait_for_selector("#answer-error", state="hidden")
    assert "old" not in page.get_attribute("#bars", "class")


def test_a_cluster_opens_and_the_path_is_lit(open_page, service):
    page = open_page(bundle="words")
    page.fill("#input", json.dumps(ROW))
    expect_bars(page, top_k(service, "words", inputs=[ROW]))
    body = {"inputs": [ROW], "log": True}
    log_probs = service.post("/v1/models/words/probabilities", json=body).json()
    clusters = service.post("/v1/models/words/clusters", json=body).json()
    [log_probs], [clusters] = log_probs["log_probabilities"], clusters["log_probabilities"]
    for cluster in range(len(clusters)):
        members = range(cluster * BLOCK, min((cluster + 1) * BLOCK, len(LABELS)))
        page.locator(f"[data-key=node-{cluster}]").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-key=root][role=button]")
        for target in members:
            page.wait_for_selector(f"[data-key=target-{target}]", state="attached")
        assert page.locator("[data-key^=target-]").count() == len(members)
        target = members[-1]
        page.locator(f"[data-key=target-{target}]").click()
        wait_for_text(page, "#path", f"log p({LABELS[target]})")
        assert page.locator(".lit").count() == 3
        local = log_probs[target] - clusters[cluster]
        numbers = re.findall(rf"{MINUS}?\d+\.\d{{4}}", page.inner_text("#path"))
        shown = [float(number.replace(MINUS, "-")) for number in numbers[:3]]
        expected = [clusters[cluster], local, log_probs[target]]
        assert shown == pytest.approx(expected, abs=1.1e-4)
        page.locator("[data-key=root]").click()
        page.wait_for_selector("[data-key=root]:not([role=button])")
    assert page.locator("[data-key^=node-]").count() == len(clusters)


def test_the_path_is_that_of_the_likeliest_target_until_one_is_chosen(open_page, service):
    page = open_page(bundle="words")
    page.fill("#input", json.dumps(ROW))
    result = top_k(service, "words", inputs=[ROW])
    expect_bars(page, result)
    page.get_by_text(f"log p({result['labels'][0]})").wait_for()
    page.locator("#bars button").nth(2).click()
    page.get_by_text(f"log p({result['labels'][2]})").wait_for()
    assert (
        page.locator("#bars button[aria-pressed=true]").inner_text().startswith(result["labels"][2])
    )


def test_nodes_of_a_tree_have_their_labels_and_chains_have_all(open_page):
    page = open_page(bundle="animals")
    page.fill("#input", json.dumps([0.0] * 8))  # neither cluster is too unlikely to be drawn
    wait_for_match(page, "#icicle", "animal")
    title = page.locator("[data-key=node-0] title").text_content()
    assert title.startswith("animal: ")
    assert title.endswith(", 5 targets")
    title = page.locator("[data-key=target-4] title").text_content()
    assert title.startswith("plant > oak: ")


HAS_NUMBER = """([key, name, number]) => {
    const title = document.querySelector(`[data-key=${key}] title`)?.textContent ?? "";
    const shown = parseFloat(title.slice(name.length + 2));
    return title.startsWith(`${name}: `) && Math.abs(shown - number) <= 0.006 * number;
}"""
IS_ZOOMED = """([key, zoomed]) => {
    const cell = document.querySelector(`[data-key=${key}] rect`);
    const whole = document.querySelector("#icicle svg").clientWidth;
    return cell !== null && (cell.getAttribute("width") >= whole - 1) === zoomed;
}"""


def name_of(node: dict) -> str:
    return " > ".join(node.get("chain", [node["label"]]))


def expect_children(page, service, node: int | None) -> list[dict]:
    """Wait until the children of a node of `codes` are drawn with their numbers; return them."""
    body = {"inputs": [[0.0] * 8], "node": node}
    answer = service.post("/v1/models/codes/children", json=body).json()
    [numbers] = answer["probabilities"]
    for child, number in zip(answer["children"], numbers, strict=True):
        key = f"target-{child['target']}" if "target" in child else f"node-{child['node']}"
        page.wait_for_function(HAS_NUMBER, arg=[key, name_of(child), number])
    return answer["children"]


def codes_log_prob(service, target: int) -> float:
    body = {"inputs": [[0.0] * 8], "targets": [target], "log": True}
    answer = service.post("/v1/models/codes/probabilities", json=body).json()
    return answer["log_probabilities"][0]


@pytest.mark.parametrize("by_keyboard", [False, True], ids=["mouse", "keyboard"])
def test_a_tree_of_four_levels_opens_to_its_targets_and_closes(open_page, service, by_keyboard):
    def press(key: str) -> None:
        if by_keyboard:
            page.locator(f"[data-key={key}]").focus()
            page.keyboard.press("Enter")
        else:
            page.locator(f"[data-key={key}]").click()

    page = open_page(bundle="codes")
    page.fill("#input", json.dumps([0.0] * 8))
    first, last = expect_children(page, service, None)
    [chain] = [one for one in expect_children(page, service, first["node"]) if "chain" in one]
    assert chain["chain"] == ["I.a", "I.a.a"]  # one place, with both names
    way = [last]
    for _ in range(2):
        press(f"node-{way[-1]['node']}")
        way.append(expect_children(page, service, way[-1]["node"])[-1])
    press(f"node-{way[-1]['node']}")
    page.wait_for_function(IS_ZOOMED, arg=[f"node-{way[-1]['node']}", True])
    target = expect_children(page, service, way[-1]["node"])[-1]
    press(f"target-{target['target']}")
    wait_for_text(page, "#path", f"log p({target['label']})")
    assert page.locator(".lit").count() == 5  # the whole tree, three nodes, and the target
    names = [*map(name_of, way), target["label"]]
    terms = [f"log p({below} | {above})" for above, below in pairwise(names)]
    shown = page.inner_text("#path")
    assert shown.startswith(f"log p({names[-1]}) = log p({names[0]}) + {' + '.join(terms)} = ")
    numbers = re.findall(rf"{MINUS}?\d+\.\d{{4}}", shown.partition("; p = ")[0])
    *local, whole = (float(number.replace(MINUS, "-")) for number in numbers)
    assert len(local) == 4
    assert sum(local) == pytest.approx(whole, abs=3e-4)
    assert whole == pytest.approx(codes_log_prob(service, target["target"]), abs=1e-4)
    for one in reversed(way):  # the end of the way leads back, one level at a time
        page.wait_for_function(IS_ZOOMED, arg=[f"node-{one['node']}", True])
        press(f"node-{one['node']}")
        page.wait_for_function(IS_ZOOMED, arg=[f"node-{one['node']}", False])
    page.wait_for_selector("[data-key=root]:not([role=button])")
    assert page.locator(".lit").count() == 5  # the path is lit from the whole tree, too


def test_arrow_keys_move_between_the_cells(open_page, service):
    page = open_page(bundle="codes")
    page.fill("#input", json.dumps([0.0] * 8))
    children = expect_children(page, service, None)
    likeliest = f"node-{children[0]['node']}", f"node-{children[1]['node']}"
    focused = "() => document.activeElement.dataset.key"
    page.locator("#icicle [tabindex='0']").focus()
    assert page.evaluate(focused) in likeliest
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-key=root][role=button]")
    assert page.evaluate(focused) in likeliest  # the zoomed node keeps the focus
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == "root"
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-key=root]:not([role=button])")


@pytest.mark.parametrize("language", ["curl", "python", "triton"])
@pytest.mark.parametrize(
    ("bundle", "text", "row"),
    [
        ("language", QUOTES, QUOTES),
        ("words", json.dumps(ROW), ROW),
    ],
    ids=["text", "numbers"],
)
def test_the_copied_request_runs(open_page, service, language, bundle, text, row):
    page = open_page(bundle=bundle, permissions=["clipboard-read", "clipboard-write"])
    page.fill("#input", text)
    page.fill("#k", "3")
    page.select_option("#request-language", language)
    expected = top_k(service, bundle, inputs=[row], k=3)
    expect_bars(page, expected)
    expect_copy_runs(page, language, expected)


def expect_copy_runs(page, language: str, expected: dict, **environment: str) -> None:
    """Copy the request, run it, and compare what it prints."""
    page.click("#copy")
    page.get_by_text("Copied.").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    command = {"curl": "sh", "python": sys.executable}.get(language)
    command = [command or python_environment("triton") / "python", "-c", copied]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120,
        env=os.environ | environment,
    )  # fmt: skip
    if language == "curl":
        assert json.loads(done.stdout)["results"] == [expected]
    else:
        printed = [line.rpartition(" ") for line in done.stdout.splitlines()]
        assert [label for label, _, _ in printed] == expected["labels"]
        got = [float(number) for _, _, number in printed]
        assert got == pytest.approx(expected["probabilities"], rel=1e-6)


def test_a_key_is_asked_for_and_kept_nowhere(open_page, repository):
    server = Process(repository, api_keys="schlüssel,plain")
    try:
        page = open_page(server, refused=3, permissions=["clipboard-read", "clipboard-write"])
        page.wait_for_selector("#key-form:not([hidden])")
        assert page.locator("#main").is_hidden()
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.get_by_text("got one that is not known").wait_for()
        page.fill("#key", "schlüssel")
        page.keyboard.press("Enter")
        page.wait_for_selector("#bars li")
        assert page.locator("#key-form").is_hidden()
        assert page.locator("#notice").is_hidden()
        page.select_option("#bundle", "words")
        page.fill("#input", json.dumps(ROW))
        page.fill("#k", "2")
        headers = {"authorization": "Bearer schlüssel".encode().decode("latin-1")}
        status, _ = server.get("/v1/models", headers)
        assert status == 200
        page.wait_for_selector("#bars:not(:has(li:nth-child(3)))")
        expected = {"labels": bars_of(page)}
        expected["probabilities"] = page.locator("#bars button").evaluate_all(
            "bars => bars.map(bar => Number(bar.title.match(/probability (.*)/)[1]))"
        )
        for language in ("curl", "python", "triton"):
            page.select_option("#request-language", language)
            assert "schlüssel" not in page.inner_text("#request")
            assert "HSOFTMAX_API_KEY" in page.inner_text("#request")
            if language != "curl":
                expect_copy_runs(page, language, expected, HSOFTMAX_API_KEY="plain")
        stored = "localStorage.length + sessionStorage.length + document.cookie.length"
        assert page.evaluate(stored) == 0
        page.reload()
        page.wait_for_selector("#key-form:not([hidden])")
    finally:
        server.end()


def test_two_inputs_are_compared(open_page, service):
    page = open_page(bundle="words")
    page.fill("#input", json.dumps(ROW))
    page.locator("#compare-card summary").click()
    page.fill("#other-input", json.dumps(OTHER_ROW))
    page.wait_for_selector("#comparison table")
    body = {"inputs": [ROW, OTHER_ROW]}
    expected = service.post("/v1/models/words/probabilities", json=body).json()["probabilities"]
    rows = page.locator("#comparison tbody tr")
    assert rows.count() >= 10
    for text in rows.all_inner_texts():
        label, first, second = text.split()[:3]
        target = LABELS.index(label)
        assert float(first) == pytest.approx(expected[0][target], rel=6e-3)
        assert float(second) == pytest.approx(expected[1][target], rel=6e-3)


def test_draws_are_counted(open_page, service):
    page = open_page(bundle="words")
    page.fill("#input", json.dumps(ROW))
    expect_bars(page, top_k(service, "words", inputs=[ROW]))
    page.locator("#sample-card summary").click()
    page.fill("#draws", "50")
    page.fill("#seed", "7")
    page.click("#sample-form button")
    page.get_by_text("50 draws of").wait_for()
    body = {"inputs": [ROW], "num_samples": 50, "seed": 7}
    labels = service.post("/v1/models/words/sample", json=body).json()["results"][0]["labels"]
    for text in page.locator("#draw-bars li").all_inner_texts():
        label, times = text.split()
        assert labels.count(label) == int(times)
    assert "seed 7" in page.inner_text("#sample-facts")


def test_the_engine_is_watched_only_while_its_card_is_open(open_page, service):
    page = open_page(bundle="words")
    reads = []
    page.on("request", lambda request: reads.append(1) if "metrics" in request.url else None)
    page.wait_for_timeout(300)
    assert reads == []
    page.locator("#engine-card summary").click()
    page.locator("#engine-card").scroll_into_view_if_needed()
    page.wait_for_selector("#charts figure")
    for _ in range(8):
        top_k(service, "words", inputs=[ROW])
        page.wait_for_timeout(100)
    wait_for_match(page, "#charts", "[1-9].* requests")
    wait_for_match(page, "#charts", r"median [\d.]+ ms")
    assert page.locator("#charts figure").count() == 4
    page.locator("#engine-card summary").click()
    page.wait_for_timeout(200)
    count = len(reads)
    page.wait_for_timeout(2500)
    assert len(reads) == count


def test_facts_are_those_of_the_service(open_page, service):
    page = open_page(bundle="state_of_the_union")
    model = service.get("/v1/models/state_of_the_union").json()
    page.get_by_text(model["digest"]).wait_for()
    shown = page.inner_text("#facts")
    sizes = [f"{model[size]:,}" for size in ("num_targets", "num_clusters", "hidden_size")]
    for fact in (model["family"], *sizes, model["precision"], *model["native"]):
        assert fact in shown
    [measured] = model["accuracy"]
    largest = re.search(
        r"at most ([\d.e-]+), ([\d.e-]+) on average, over ([\d,]+) random rows", shown
    )
    assert float(largest[1]) == pytest.approx(measured["max_error"], rel=0.06)
    assert float(largest[2]) == pytest.approx(measured["mean_error"], rel=0.06)
    assert largest[3] == f"{measured['rows']:,}"
    assert f"{len(model['verification'])} passed" in shown
    assert f"{model['size_bytes']:,} bytes" in shown


def test_the_readmes_query_can_be_pasted(open_page):
    page = open_page(bundle="state_of_the_union")
    page.fill("#input", QUESTION.read_text())
    wait_for_government(page)

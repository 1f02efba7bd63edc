"""Queries as things: how they fare, what they have given so far, their feedback and their end."""

import sys
import threading
from types import SimpleNamespace

import pytest

from gridproof.engine import runtime
from gridproof.engine.client import Queries
from gridproof.errors import ConfigError, QueryCancelled, QueryError

FILES, ENTRIES = 6, 5_000

MAKE = """
#include <TFile.h>
#include <TTree.h>
void make_ids(const char *name, int entries, long offset) {
   TFile file(name, "RECREATE");
   TTree t("events", "");
   Long64_t id;
   t.Branch("id", &id);
   t.SetAutoFlush(500);
   for (id = offset; id < offset + entries; ++id) t.Fill();
   t.Write();
}
"""

# Waits so many ms every ten entries as the option says; Terminate notes what Begin left in this process.
SELECTOR = """
#include <TH1D.h>
#include <TH2D.h>
#include <TH3D.h>
#include <TProfile.h>
#include <TSelector.h>
#include <TSystem.h>
#include <TTreeReader.h>
#include <TTreeReaderValue.h>
class Waits : public TSelector {
   TTreeReader fReader;
   TTreeReaderValue<Long64_t> id = {fReader, "id"};
   TH1D *h1 = nullptr; TH2D *h2 = nullptr; TProfile *prof = nullptr; TH3D *h3 = nullptr;
   int wait = 0;
   bool begun = false;
public:
   int Version() const override { return 2; }
   void Begin(TTree *) override { begun = true; fInput->Add(new TNamed("begun", "")); }
   void SlaveBegin(TTree *) override {
      wait = TString(GetOption()).Atoi();
      if (!fInput->FindObject("begun")) Abort("no input");
      fOutput->Add(h1 = new TH1D("h1", "", 30, 0, 30000));
      fOutput->Add(h2 = new TH2D("h2", "", 30, 0, 30000, 2, 0, 2));
      fOutput->Add(prof = new TProfile("prof", "", 30, 0, 30000));
      fOutput->Add(h3 = new TH3D("h3", "", 2, 0, 30000, 2, 0, 2, 2, 0, 2));
   }
   void Init(TTree *tree) override { fReader.SetTree(tree); }
   bool Process(Long64_t entry) override {
      fReader.SetLocalEntry(entry);
      h1->Fill(*id); h2->Fill(*id, *id % 2); prof->Fill(*id, *id); h3->Fill(*id, 1, 1);
      if (entry % 10 == 0) gSystem->Sleep(wait);
      return true;
   }
   void Terminate() override {
      fOutput->Add(new TNamed("terminated", begun ? "here" : fInput->FindObject("begun") ? "elsewhere" : ""));
   }
   ClassDefOverride(Waits, 0);
};
"""


@pytest.fixture(scope="module")
def root():
    loaded = runtime.load()
    loaded.gInterpreter.Declare(MAKE)
    loaded.gROOT.SetBatch(True)
    return loaded


@pytest.fixture(scope="module")
def parts(root, tmp_path_factory):
    directory = tmp_path_factory.mktemp("ids")
    files = []
    for number in range(FILES):
        path = directory / f"ids{number}.root"
        root.make_ids(str(path), ENTRIES, number * ENTRIES)
        files.append({"name": str(path), "kind": "path", "size": path.stat().st_size, "replicas": []})
    return [{"tree": "events", "alias": "", "files": files}]


@pytest.fixture(scope="module")
def selector(tmp_path_factory):
    path = tmp_path_factory.mktemp("selector") / "Waits.C"
    path.write_text(SELECTOR)
    return f"{path}+"


class Recorded:
    """The cluster's `send`, and the names of the messages that went through it."""

    def __init__(self, cluster):
        self._cluster = cluster
        self.messages = []

    def __call__(self, message, **arguments):
        self.messages.append(message)
        return self._cluster.send(message, **arguments)


@pytest.fixture(scope="module")
def sent(cluster):
    return Recorded(cluster)


@pytest.fixture(scope="module")
def queries(cluster, root, sent, selector, parts):
    for site in "AB":
        cluster.start(site)
    cluster.workers(2)
    opened = Queries(sent, cluster.cache, None)
    opened.submit(parts, selector).result()  # compiled everywhere from now on
    return opened


@pytest.fixture
def submit(queries, parts, selector):
    made = []

    def start(wait=0, **options):
        made.append(queries.submit(parts, selector, str(wait), **options))
        return made[-1]

    yield start
    for query in made:
        query.forget()


@pytest.fixture
def canvas(root):
    made = root.TCanvas("watched", "", 600, 400)
    yield made
    made.Close()


def assert_whole(result):
    assert result["h1"].GetEntries() == FILES * ENTRIES
    assert [result["h1"].GetBinContent(i) for i in range(1, 31)] == [1000] * 30
    assert result.summary.events == FILES * ENTRIES


def until_merged(query, events=1):
    while query.progress.events < events:
        assert not query.wait(0.05)


def test_a_handle_is_there_at_once_and_tells_how_its_query_fares(submit):
    query = submit(2, title="ids <all>")
    now = query.progress
    assert (now.state, now.workers) == ("running", 2)
    assert now.fraction < 1
    until_merged(query)
    assert query.progress.rate > 0
    assert 0 < query.progress.remaining < float("inf")
    assert query.wait()
    now = query.progress
    assert (now.state, now.events, now.expected, now.fraction, now.remaining) == (
        "done",
        30_000,
        30_000,
        1,
        0,
    )
    assert "done, 100% of 30,000 events" in str(now)
    assert repr(query).startswith(f"<Query {query.id} 'ids <all>': done")
    assert "ids &lt;all&gt;" in query._repr_html_()
    assert '<progress value="1.0000" max="1">' in query._repr_html_()
    assert query.kept_until > query.submitted


def test_waiting_has_a_limit(submit):
    query = submit(5)
    assert query.wait(0.1) is False
    assert query.wait() is True


def test_a_result_comes_once_and_stays(submit, sent):
    query = submit()
    first = query.result()
    assert_whole(first)
    assert first["terminated"].GetTitle() == "here"
    sent.messages.clear()
    assert query.result() is first
    assert sent.messages == []


def test_a_partial_result_is_a_part_of_the_whole(submit):
    query = submit(2)
    until_merged(query)
    part = query.partial()
    assert 0 < part["h1"].GetEntries() <= FILES * ENTRIES
    assert "terminated" not in part
    assert all(part["h1"].GetBinContent(i) <= 1000 for i in range(1, 31))
    assert_whole(query.result())
    assert part["h1"].GetEntries() <= FILES * ENTRIES


def test_queries_in_flight_share_the_workers_also_when_threads_submit_them(submit):
    results = {}
    both_submitted = threading.Barrier(2, timeout=60)

    def run(name):
        query = submit(1, title=name)
        both_submitted.wait()
        results[name] = query.result()

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("one", "two"):
        assert_whole(results[name])


def test_a_cancelled_query_stops_and_keeps_what_was_merged(submit, cluster):
    query = submit(20)
    until_merged(query)
    query.cancel()
    assert query.wait()
    assert query.progress.state == "cancelled"
    assert 0 < query.partial()["h1"].GetEntries() < FILES * ENTRIES
    with pytest.raises(QueryCancelled):
        query.result()
    assert_whole(submit().result())  # the workers are free again


def test_a_callback_gets_what_is_merged_so_far(submit):
    seen = []
    query = submit(3, feedback=0.2)
    result = query.result(on_feedback=lambda outputs: seen.append(outputs["h1"].GetEntries()))
    assert_whole(result)
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen) >= 2
    assert 0 < seen[0] < FILES * ENTRIES


def test_what_a_callback_raises_comes_through_and_the_query_goes_on(submit):
    query = submit(2)

    def fails(outputs):
        raise RuntimeError("not drawn")

    with pytest.raises(RuntimeError, match="not drawn"):
        query.result(on_feedback=fails)
    assert_whole(query.result())


def test_histograms_are_drawn_one_per_pad_and_updated_in_place(submit, queries, root, canvas, monkeypatch):
    drawn = []

    def note(*_):
        pads = [p for p in canvas.GetListOfPrimitives() if p.InheritsFrom("TPad")]
        drawn.append([(root.addressof(o), o.GetEntries()) for p in pads for o in p.GetListOfPrimitives()
                      if o.InheritsFrom("TH1")])  # fmt: skip

    monkeypatch.setattr(queries, "watch", note)
    result = submit(3, feedback=0.2).result()
    note()
    assert_whole(result)
    drawn = [snapshot for snapshot in drawn if snapshot]
    assert len(drawn) > 2
    assert {len(snapshot) for snapshot in drawn} == {3}  # and no pad for the TH3
    assert len({tuple(address for address, _ in snapshot) for snapshot in drawn}) == 1
    assert len({entries for ((_, entries), *_) in drawn}) > 1
    assert [entries for _, entries in drawn[-1]] == [FILES * ENTRIES] * 3
    assert root.gPad.GetCanvas().GetName() == "watched"


def test_pads_that_the_user_made_are_kept(submit, root, canvas):
    canvas.Divide(1, 4)
    canvas.cd(1).SetLogy()
    assert_whole(submit().result())
    pads = list(canvas.GetListOfPrimitives())
    assert len(pads) == 4
    assert pads[0].GetLogy()
    assert pads[0].GetListOfPrimitives().FindObject("h1").GetEntries() == FILES * ENTRIES


def test_a_canvas_that_is_closed_meanwhile_harms_nobody(submit, queries, canvas, monkeypatch):
    monkeypatch.setattr(queries, "watch", lambda status: canvas.Close() if status["events"] else None)
    assert_whole(submit(2, feedback=0.1).result())


def test_in_a_notebook_the_picture_is_refreshed_in_its_cell(submit, canvas, monkeypatch):
    shown, updated = [], []

    def display(picture, display_id):
        shown.append(picture.data)
        return SimpleNamespace(update=lambda picture: updated.append(picture.data))

    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(
        sys.modules, "IPython.display", SimpleNamespace(Image=SimpleNamespace, display=display)
    )
    assert_whole(submit(3, feedback=0.2).result())
    assert len(shown) == 1
    assert updated
    assert all(picture.startswith(b"\x89PNG") for picture in shown + updated)


def test_with_nobody_to_look_no_snapshot_is_transferred(submit, sent):
    sent.messages.clear()
    assert_whole(submit(2).result())
    assert "partial" not in sent.messages


def test_another_process_finds_the_queries_and_terminates_on_a_fresh_instance(submit, cluster):
    running, done = submit(2, title="running"), submit(title="done")
    done.wait()
    elsewhere = Queries(cluster.send, cluster.cache, None)
    found = {query.id: query for query in elsewhere.handles()}
    assert {found[q.id].title for q in (running, done)} == {"running", "done"}
    result = found[done.id].result()
    assert_whole(result)
    assert result["terminated"].GetTitle() == "elsewhere"
    assert "h1" in found[done.id].partial()
    assert_whole(found[running.id].result())
    assert elsewhere.handles() == list(found.values())


def test_a_forgotten_query_is_gone(submit, queries):
    query = submit(5)
    query.forget()
    assert query not in queries.handles()
    with pytest.raises(QueryError, match="was forgotten"):
        query.result()
    assert "was forgotten" in repr(query)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"on_missing": "ignore"}, "on_missing"),
        ({"commit": "never"}, "commit"),
        ({"feedback": 0}, "feedback"),
        ({"feedback": float("inf")}, "feedback"),
        ({"feedback": "1 s"}, "feedback"),
        ({"feedback": 10**400}, "feedback"),
        ({"option": 3}, "option"),
        ({"title": None}, "title"),
        ({"inputs": {"x": object()}}, "'x'"),
        ({"inputs": [3]}, "names"),
        ({"inputs": {3: 1}}, "name of an input"),
        ({"inputs": {"": 1}}, "name of an input"),
        ({"inputs": 3}, "inputs"),
    ],
)
def test_arguments_that_cannot_be_are_told_before_anything_is_sent(
    queries, parts, selector, sent, options, names
):
    sent.messages.clear()
    with pytest.raises(ConfigError, match=names):
        queries.submit(parts, selector, **options)
    assert sent.messages == []


def test_a_callback_must_be_one(submit):
    with pytest.raises(ConfigError, match="on_feedback"):
        submit().result(on_feedback=[])


def test_only_times_are_waited_for(submit):
    with pytest.raises(ConfigError, match="timeout is None or a number of seconds"):
        submit().wait("for me")

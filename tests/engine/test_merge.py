"""Outputs filled in parts and merged are what one filling of everything gives."""

import pytest

from gridproof.engine import runtime
from gridproof.engine.client import Queries
from gridproof.engine.code import CodeStore
from gridproof.engine.merge import Merger
from gridproof.engine.spool import Spool
from gridproof.errors import MergeError

FILL = """
#include <TEfficiency.h>
#include <TEntryList.h>
#include <TGraphErrors.h>
#include <TH2Poly.h>
#include <TH3.h>
#include <THStack.h>
#include <THn.h>
#include <THnSparse.h>
#include <TMap.h>
#include <TNtuple.h>
#include <TObjString.h>
#include <TParameter.h>
#include <TProfile2D.h>
#include <TProfile3D.h>
#include <TSelectorList.h>

// Merges by a method that ROOT only finds through its interpreter.
class Counter : public TNamed {
public:
   long n = 0;
   std::vector<int> seen;
   Counter(const char *name = "") : TNamed(name, "") {}
   Long64_t Merge(TCollection *others) {
      for (auto other : *others) {
         n += static_cast<Counter *>(other)->n;
         for (auto x : static_cast<Counter *>(other)->seen) seen.push_back(x);
      }
      return n;
   }
   ClassDefInlineOverride(Counter, 1);
};

template <typename H> void add_1d(TList &out, const char *name, int first, int last) {
   auto h = new H(name, "", 40, 0, 40);
   h->Sumw2();
   for (int i = first; i < last; ++i) h->Fill(i % 45 - 2, i % 3);
   out.Add(h);
}
template <typename H> void add_2d(TList &out, const char *name, int first, int last) {
   auto h = new H(name, "", 10, 0, 10, 8, 0, 8);
   for (int i = first; i < last; ++i) h->Fill(i % 11, i % 7, i % 3);
   out.Add(h);
}
template <typename H> void add_3d(TList &out, const char *name, int first, int last) {
   auto h = new H(name, "", 5, 0, 5, 4, 0, 4, 3, 0, 3);
   for (int i = first; i < last; ++i) h->Fill(i % 5, i % 4, i % 3, 2.);
   out.Add(h);
}
template <typename H> void add_nd(TList &out, const char *name, int first, int last) {
   int bins[] = {5, 4, 3, 2}; double low[] = {0, 0, 0, 0}, high[] = {5, 4, 3, 2};
   auto h = new H(name, "", 4, bins, low, high);
   h->Sumw2();
   for (int i = first; i < last; ++i) {
      double x[] = {i % 5 + .5, i % 4 + .5, i % 3 + .5, i % 2 + .5};
      h->Fill(x, 1 + i % 4);
   }
   out.Add(h);
}

TList *fill(int first, int last) {
   TDirectory::TContext nowhere(nullptr);
   auto out = new TSelectorList;
   add_1d<TH1C>(*out, "h1c", first, last); add_1d<TH1S>(*out, "h1s", first, last);
   add_1d<TH1I>(*out, "h1i", first, last); add_1d<TH1L>(*out, "h1l", first, last);
   add_1d<TH1F>(*out, "h1f", first, last); add_1d<TH1D>(*out, "h1d", first, last);
   add_1d<TProfile>(*out, "profile", first, last);
   add_2d<TH2C>(*out, "h2c", first, last); add_2d<TH2S>(*out, "h2s", first, last);
   add_2d<TH2I>(*out, "h2i", first, last); add_2d<TH2F>(*out, "h2f", first, last);
   add_2d<TH2D>(*out, "h2d", first, last); add_2d<TProfile2D>(*out, "profile2", first, last);
   add_3d<TH3F>(*out, "h3f", first, last); add_3d<TH3D>(*out, "h3d", first, last);
   add_3d<TH3I>(*out, "h3i", first, last); add_3d<TProfile3D>(*out, "profile3", first, last);
   add_nd<THnSparseF>(*out, "sparse_f", first, last); add_nd<THnSparseD>(*out, "sparse_d", first, last);
   add_nd<THnF>(*out, "hn_f", first, last); add_nd<THnD>(*out, "hn_d", first, last);

   auto growing = new TH1D("growing", "", 10, 0, 10); growing->SetCanExtend(TH1::kAllAxes);
   auto labels = new TH1D("labels", "", 1, 0, 1); labels->SetCanExtend(TH1::kAllAxes);
   auto poly = new TH2Poly("poly", "", 0, 10, 0, 10); poly->Honeycomb(0, 0, 1, 5, 5);
   auto graph = new TGraph; graph->SetName("graph");
   auto errors = new TGraphErrors; errors->SetName("errors");
   auto efficiency = new TEfficiency("efficiency", "", 10, 0, 10); efficiency->SetDirectory(nullptr);
   auto sum = new TParameter<Long64_t>("sum", 0, '+');
   auto largest = new TParameter<double>("largest", 0, 'M');
   auto counter = new Counter("counter");
   auto tree = new TTree("tree", ""); tree->SetDirectory(nullptr);
   int number; std::vector<float> values; std::string text;
   tree->Branch("number", &number); tree->Branch("values", &values); tree->Branch("text", &text);
   auto ntuple = new TNtuple("ntuple", "", "x:y"); ntuple->SetDirectory(nullptr);
   for (int i = first; i < last; ++i) {
      growing->Fill(i);
      labels->Fill(TString::Format("run%d", (i * 7) % 13).Data(), 1);
      poly->Fill(i % 9 + .1, i % 7 + .2);
      graph->AddPoint(i, 2 * i);
      errors->AddPoint(i, i); errors->SetPointError(errors->GetN() - 1, 1, i);
      efficiency->Fill(i % 3 == 0, i % 10);
      sum->SetVal(sum->GetVal() + i);
      largest->SetVal(std::max<double>(largest->GetVal(), i));
      counter->n += i; counter->seen.push_back(i);
      number = i; values.assign(i % 4, i); text = std::string(i % 5, 'x'); tree->Fill();
      ntuple->Fill(i, -i);
   }
   tree->ResetBranchAddresses();
   for (TObject *o : std::initializer_list<TObject *>{growing, labels, poly, graph, errors, efficiency})
      out->Add(o);
   for (TObject *o : std::initializer_list<TObject *>{sum, largest, counter, tree, ntuple})
      out->Add(o);

   auto list = new TList; list->SetName("list"); list->SetOwner();
   auto array = new TObjArray; array->SetName("array");
   auto map = new TMap; map->SetName("map");
   auto stack = new THStack("stack", "");
   TList inner;
   add_1d<TH1D>(inner, "inner", first, last);
   add_2d<TH2D>(inner, "inner2", first, last);
   list->Add(inner.At(0)); array->Add(inner.At(1)); list->Add(array);
   TList others;
   add_1d<TH1D>(others, "of_map", first, last);
   add_1d<TH1D>(others, "of_stack", first, last);
   map->Add(new TObjString("key"), others.At(0));
   stack->Add(static_cast<TH1 *>(others.At(1)));
   out->Add(list); out->Add(map); out->Add(stack);
   return out;
}

// A list that only some instances make, with a histogram in it that is an output too.
TList *some(int first, int last, bool extra) {
   auto out = new TList;
   add_1d<TH1D>(*out, "twin", first, last);
   add_1d<TH1D>(*out, "twin", first, 2 * last);
   if (!extra) return out;
   auto list = new TList; list->SetName("late");
   list->Add(out->First());
   add_1d<TH1D>(*list, "own", first, last);
   out->AddFirst(list);
   return out;
}

// The largest difference of contents and squared errors.
double difference(THnBase *one, THnBase *other) {
   double most = 0;
   std::vector<int> where(one->GetNdimensions());
   for (Long64_t i = 0; i < other->GetNbins(); ++i) {
      const double content = other->GetBinContent(i, where.data());
      const auto cell = one->GetBin(where.data(), false);
      most = std::max(most, std::abs(one->GetBinContent(cell) - content));
      most = std::max(most, std::abs(one->GetBinError2(cell) - other->GetBinError2(i)));
   }
   return most;
}

TList *list_of(std::initializer_list<TObject *> objects) {
   auto out = new TList;
   for (auto object : objects) out->Add(object);
   return out;
}
TList *notes(const char *text) { return list_of({new TNamed("note", text), new TNamed("same", "text")}); }
TList *histogram(int bins, double low, double high) {
   TDirectory::TContext nowhere(nullptr);
   auto h = new TH1D("h", "", bins, low, high);
   h->Fill((low + high) / 2);
   return list_of({h});
}
"""

HISTOGRAMS = """
h1c h1s h1i h1l h1f h1d profile h2c h2s h2i h2f h2d profile2 h3f h3d h3i profile3
growing poly list/inner list/array/inner2 map/key stack/of_stack
"""


@pytest.fixture(scope="module")
def root():
    loaded = runtime.load_merging()
    loaded.TH1.AddDirectory(False)
    loaded.gInterpreter.Declare(FILL)
    return loaded


@pytest.fixture
def merger(root, tmp_path):
    return make_merger(root, tmp_path)


def make_merger(root, directory):
    return Merger(root, CodeStore(root, directory, renames=False), [], Spool(root, directory / "query-1"))


def add(merger, root, objects):
    data = runtime.pack(root, objects)
    classes = {o.ClassName() for o in objects}
    objects.SetOwner(False)
    merger.merge(merger.decode(data, classes))


def outputs(root, merger):
    objects = runtime.decode(root, merger.snapshot())  # what its lists share, it deletes once
    listed = objects.List()
    listed._owner = objects
    return listed


@pytest.fixture(scope="module")
def merged(root, tmp_path_factory):
    merger = make_merger(root, tmp_path_factory.mktemp("code"))
    for first, last in ((0, 30), (30, 31), (31, 31), (31, 200)):
        add(merger, root, root.fill(first, last))
    assert merger.warnings() == []
    return outputs(root, merger)


@pytest.fixture(scope="module")
def whole(root):
    return root.fill(0, 200)


def find(objects, path):
    for name in path.split("/"):
        if objects.ClassName() == "TMap":
            objects = objects.GetValue(name)
        elif objects.ClassName() == "THStack":
            objects = objects.GetHists().FindObject(name)
        else:
            objects = objects.FindObject(name)
        assert objects, path
    return objects


def cells(histogram):
    return [(histogram.GetBinContent(i), histogram.GetBinError(i)) for i in range(histogram.GetNcells())]


@pytest.mark.parametrize("path", HISTOGRAMS.split())
def test_histograms(merged, whole, path):
    ours, theirs = find(merged, path), find(whole, path)
    assert ours.ClassName() == theirs.ClassName()
    assert ours.GetEntries() == theirs.GetEntries()
    assert cells(ours) == [pytest.approx(cell) for cell in cells(theirs)]
    assert ours.GetMean() == pytest.approx(theirs.GetMean())
    assert ours.GetXaxis().GetXmax() == theirs.GetXaxis().GetXmax()


def test_labels_are_matched_by_their_text(merged, whole):
    def by_label(h):
        return {h.GetXaxis().GetBinLabel(i): h.GetBinContent(i) for i in range(1, h.GetNbinsX() + 1)}

    ours, theirs = by_label(find(merged, "labels")), by_label(find(whole, "labels"))
    assert {k: v for k, v in ours.items() if k} == {k: v for k, v in theirs.items() if k}


@pytest.mark.parametrize("name", ["sparse_f", "sparse_d", "hn_f", "hn_d"])
def test_histograms_of_many_dimensions(root, merged, whole, name):
    ours, theirs = find(merged, name), find(whole, name)
    assert ours.GetEntries() == theirs.GetEntries()
    assert ours.GetNbins() == theirs.GetNbins()
    assert root.difference(ours, theirs) < 1e-9


def test_graphs(merged, whole):
    for name in ("graph", "errors"):
        ours, theirs = find(merged, name), find(whole, name)
        points = sorted((ours.GetX()[i], ours.GetY()[i], ours.GetErrorY(i)) for i in range(ours.GetN()))
        assert points == [(theirs.GetX()[i], theirs.GetY()[i], theirs.GetErrorY(i)) for i in range(200)]


def test_trees_in_memory(merged):
    tree = find(merged, "tree")
    assert tree.GetEntries() == 200
    for i, entry in enumerate(tree):
        assert (entry.number, list(entry.values), str(entry.text)) == (i, [i] * (i % 4), "x" * (i % 5))
    assert [entry.y for entry in find(merged, "ntuple")] == [-i for i in range(200)]


def test_parameters_efficiencies_and_classes_with_a_merge_of_their_own(merged, whole):
    assert find(merged, "sum").GetVal() == sum(range(200))
    assert find(merged, "largest").GetVal() == 199
    ours, theirs = find(merged, "efficiency"), find(whole, "efficiency")
    assert cells(ours.GetPassedHistogram()) == cells(theirs.GetPassedHistogram())
    assert cells(ours.GetTotalHistogram()) == cells(theirs.GetTotalHistogram())
    assert find(merged, "counter").n == sum(range(200))
    assert list(find(merged, "counter").seen) == list(range(200))


def test_outputs_of_one_name_are_matched_in_their_order(root, merger):
    for first in range(0, 30, 10):
        add(merger, root, root.some(first, first + 10, False))
    merged = outputs(root, merger)
    assert [h.GetEntries() for h in merged] == [30, 20 + 30 + 40]


def test_an_object_in_two_collections_counts_once_and_stays_in_both(root, merger):
    for first in range(0, 60, 10):
        add(merger, root, root.some(first, first + 10, first >= 30))
    merged = outputs(root, merger)
    late = find(merged, "late")
    assert late.First().GetEntries() == 60
    assert late.FindObject("own").GetEntries() == 30
    assert any(late.First() == o for o in merged)


@pytest.mark.parametrize("owner", [False, True])
@pytest.mark.parametrize("order", [("twin", "late"), ("late", "twin")])
def test_at_the_users_side_objects_in_two_collections_go_in_any_order(root, tmp_path, owner, order):
    listed = root.some(0, 10, True)
    listed.FindObject("late").SetOwner(owner)
    queries = Queries(None, tmp_path, None)
    taken = queries.taken(queries.unpack(runtime.pack(root, listed)))
    assert taken["late"].FindObject("own").GetEntries() == 10
    for name in order:
        del taken[name]
        assert all(item.GetEntries() for item in taken.values() if item.ClassName() == "TH1D")


def test_what_cannot_be_merged_is_kept_once_with_a_warning(root, merger):
    for text in ("first", "second", "third"):
        add(merger, root, root.notes(text))
    assert [o.GetTitle() for o in outputs(root, merger)] == ["first", "text"]
    assert merger.warnings() == ['output "note" of class TNamed cannot be merged; the first one was kept']


def test_histograms_with_other_limits_fail_clearly(root, merger):
    add(merger, root, root.histogram(10, 0, 10))
    with pytest.raises(
        MergeError, match=r'output "h" of class TH1D: Merge: Cannot merge .* limits are inconsistent'
    ):
        add(merger, root, root.histogram(7, 0.3, 11))


def test_bytes_that_are_no_outputs_are_refused(merger):
    for data in (b"", b"nonsense" * 100):
        with pytest.raises(MergeError, match="cannot be read"):
            merger.decode(data, [])


def test_an_unknown_class_is_named(merger):
    with pytest.raises(MergeError, match="class Nowhere of an output is not known"):
        merger.decode(b"", ["Nowhere"])


def test_finished_outputs_lie_in_a_file_and_are_read_in_pieces(root, merger, tmp_path):
    add(merger, root, root.histogram(10, 0, 10))
    before = merger.snapshot()
    merger.finish(good=True)
    (file,) = (tmp_path / "query-1").iterdir()
    assert file.read_bytes() == before == merger.snapshot()
    assert merger.sizes() == {"": len(before)}
    assert merger.read("", 0, 100) + merger.read("", 100, len(before)) == before
    merger.spool.remove()
    assert not (tmp_path / "query-1").exists()


def test_finished_outputs_stay_in_memory_where_no_file_can_be_written(root, merger, tmp_path):
    add(merger, root, root.histogram(10, 0, 10))
    (tmp_path / "query-1").write_text("in the way")
    merger.finish(good=True)
    data = merger.snapshot()
    assert merger.sizes() == {"": len(data)}
    assert merger.read("", 0, 100) + merger.read("", 100, len(data)) == data


def test_after_a_failed_merge_nothing_is_given(root, merger):
    add(merger, root, root.histogram(10, 0, 10))
    with pytest.raises(MergeError):
        add(merger, root, root.histogram(7, 0.3, 11))
    reads = merger.snapshot, merger.sizes, lambda: merger.read("", 0, 10)
    for ask in (lambda: merger.finish(good=False), *reads):
        with pytest.raises(MergeError, match="limits are inconsistent"):
            ask()

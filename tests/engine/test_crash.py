from gridproof.engine.crash import readable

LOG = """signal 11 after 3.2 s: last words of the selector
gridproof: this worker crashed; the innermost frames are:
[0x7f425ae8937b]
/lib/x86_64-linux-gnu/libc.so.6(+0x3c050)[0x7f425f85a050]
/cache/lib/Friends_e1840d05.so(_ZN7Friends7ProcessEx+0x150)[0x7f4254ff5700]
/usr/lib/libCPyCppyy.so(_ZN8CPyCppyy9CPPMethod7ExecuteEPvlPNS_11CallContextE+0x66)[0x7f4255c0d586]
/usr/lib/libpython3.11.so.1.0(_PyEval_EvalFrameDefault+0x2e53)[0x7f425fafd9c3]
/lib/x86_64-linux-gnu/libc.so.6(+0x891f5)[0x7f425f8a71f5]"""


def test_a_crash_report_shows_the_selectors_frames_by_their_cpp_names():
    assert readable(LOG).splitlines() == [
        "signal 11 after 3.2 s: last words of the selector",
        "gridproof: this worker crashed; the innermost frames are:",
        "  Friends::Process(long long) in Friends_e1840d05.so",
    ]

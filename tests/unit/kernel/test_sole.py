"""Who holds a namespace's lock, by the text of /proc/locks."""

from __future__ import annotations

from dari.kernel.sole import holder

LOCKS = """\
1: POSIX  ADVISORY  WRITE 812 00:04:4026531833 0 EOF
2: FLOCK  ADVISORY  READ 813 00:04:4026531833 0 EOF
3: FLOCK  ADVISORY  WRITE 814 00:04:14026531833 0 EOF
4: -> FLOCK  ADVISORY  WRITE 815 00:04:4026531833 0 EOF
5: FLOCK  ADVISORY  WRITE 816 00:04:4026531833 0 EOF
"""


def test_the_holder_is_whose_flock_writes_the_inode() -> None:
    assert holder(LOCKS, 4026531833) == 816
    assert holder(LOCKS, 4026531834) is None
    assert holder("", 4026531833) is None

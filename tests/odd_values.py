"""Values that no header, journal or record should hold: paths, huge numbers, other kinds."""

from hypothesis import strategies as st

ODD = st.one_of(
    st.sampled_from(
        [
            "../../etc/passwd",
            "/etc/passwd",
            "a\0b",
            "\ud800",
            "",
            2**31,
            2**63,
            -(2**63),
            10**30,
            -1,
            0,
            True,
            None,
            1.5,
            [],
            {},
            [[0]],
            {"..": "/"},
            "x" * 5000,
        ]
    ),
    st.integers(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
)

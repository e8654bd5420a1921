def test_1(f):
    assert f(['a', 'bc']) == ['A', 'BC']


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f(['Hi']) == ['HI']


def test_4(f):
    assert f(['x', 'Y', 'z']) == ['X', 'Y', 'Z']

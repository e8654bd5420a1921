def test_1(f):
    assert f([1, 2], [3, 4]) == [(1, 3), (2, 4)]


def test_2(f):
    assert f([], []) == []


def test_3(f):
    assert f(['a'], [1]) == [('a', 1)]


def test_4(f):
    assert f([1, 2, 3], 'xyz') == [(1, 'x'), (2, 'y'), (3, 'z')]

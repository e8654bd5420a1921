def test_1(f):
    assert f([1, 2], [3, 4]) == 11


def test_2(f):
    assert f([], []) == 0


def test_3(f):
    assert f([5], [6]) == 30


def test_4(f):
    assert f([1, 0, -1], [7, 8, 9]) == -2

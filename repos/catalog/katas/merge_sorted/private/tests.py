def test_1(f):
    assert f([1, 3], [2, 4]) == [1, 2, 3, 4]


def test_2(f):
    assert f([], []) == []


def test_3(f):
    assert f([5], []) == [5]


def test_4(f):
    assert f([2, 2], [1]) == [1, 2, 2]

def test_1(f):
    assert f([3, 1, 2]) == [3, 2, 1]


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f([5, 1, 5]) == [5, 5, 1]


def test_4(f):
    assert f([-2, -1]) == [-1, -2]

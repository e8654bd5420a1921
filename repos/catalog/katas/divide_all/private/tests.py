def test_1(f):
    assert f([2, 4], 2) == [1.0, 2.0]


def test_2(f):
    assert f([], 3) == []


def test_3(f):
    assert f([1], 4) == [0.25]


def test_4(f):
    assert f([10, 0, -5], 5) == [2.0, 0.0, -1.0]

def test_1(f):
    assert f([1], [2, 3]) == [1, 2, 3]


def test_2(f):
    assert f([], []) == []


def test_3(f):
    assert f([], ['x']) == ['x']


def test_4(f):
    assert f([3, 2], [1]) == [3, 2, 1]

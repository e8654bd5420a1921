def test_1(f):
    assert f([1, 2, 1], 1) == [2]


def test_2(f):
    assert f([], 5) == []


def test_3(f):
    assert f(['a', 'b'], 'c') == ['a', 'b']


def test_4(f):
    assert f([3, 3], 3) == []

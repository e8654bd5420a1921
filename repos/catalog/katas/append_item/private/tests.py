def test_1(f):
    assert f([1, 2], 3) == [1, 2, 3]


def test_2(f):
    assert f([], 5) == [5]


def test_3(f):
    assert f(['a'], 'b') == ['a', 'b']


def test_4(f):
    assert f([0], 0) == [0, 0]

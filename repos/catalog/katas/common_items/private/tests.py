def test_1(f):
    assert f([1, 2, 3], [2, 3, 4]) == [2, 3]


def test_2(f):
    assert f([], [1]) == []


def test_3(f):
    assert f(['a'], ['b']) == []


def test_4(f):
    assert f([5, 4], [4, 5]) == [5, 4]

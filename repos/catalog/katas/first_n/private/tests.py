def test_1(f):
    assert f([1, 2, 3], 2) == [1, 2]


def test_2(f):
    assert f([1, 2, 3], 0) == []


def test_3(f):
    assert f(['a'], 1) == ['a']


def test_4(f):
    assert f([4, 5, 6, 7], 3) == [4, 5, 6]

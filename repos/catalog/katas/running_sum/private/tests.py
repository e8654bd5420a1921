def test_1(f):
    assert f([1, 2, 3]) == [1, 3, 6]


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f([5]) == [5]


def test_4(f):
    assert f([4, -4, 2]) == [4, 0, 2]

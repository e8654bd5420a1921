def test_1(f):
    assert f([1, 2, 3]) == [2, 3]


def test_2(f):
    assert f(['a']) == []


def test_3(f):
    assert f([4, 5]) == [5]


def test_4(f):
    assert f([0, 0, 1]) == [0, 1]

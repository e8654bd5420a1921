def test_1(f):
    assert f([1, 2, 3]) == [1, 2]


def test_2(f):
    assert f(['a']) == []


def test_3(f):
    assert f([4, 5]) == [4]


def test_4(f):
    assert f([0, 1, 1]) == [0, 1]

def test_1(f):
    assert f([1, 2, 3]) == 3


def test_2(f):
    assert f(['a']) == 'a'


def test_3(f):
    assert f([9, 8]) == 8


def test_4(f):
    assert f([0, 5, 0]) == 0

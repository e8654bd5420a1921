def test_1(f):
    assert f(1, 3) == [1, 1, 1]


def test_2(f):
    assert f('a', 2) == ['a', 'a']


def test_3(f):
    assert f(0, 0) == []


def test_4(f):
    assert f(7, 1) == [7]

def test_1(f):
    assert f(6) == [2, 4, 6]


def test_2(f):
    assert f(7) == [2, 4, 6]


def test_3(f):
    assert f(1) == []


def test_4(f):
    assert f(2) == [2]


def test_5(f):
    assert f(10) == [2, 4, 6, 8, 10]

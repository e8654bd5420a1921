def test_1(f):
    assert f(7, 3) == 1


def test_2(f):
    assert f(8, 4) == 0


def test_3(f):
    assert f(3, 10) == 3


def test_4(f):
    assert f(29, 5) == 4


def test_5(f):
    assert f(0, 2) == 0

def test_1(f):
    assert f(2, 3) == 6


def test_2(f):
    assert f(1, 1) == 1


def test_3(f):
    assert f(10, 5) == 50


def test_4(f):
    assert f(0, 7) == 0


def test_5(f):
    assert f(8, 8) == 64

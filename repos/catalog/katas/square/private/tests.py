def test_1(f):
    assert f(3) == 9


def test_2(f):
    assert f(0) == 0


def test_3(f):
    assert f(-5) == 25


def test_4(f):
    assert f(12) == 144


def test_5(f):
    assert f(1) == 1

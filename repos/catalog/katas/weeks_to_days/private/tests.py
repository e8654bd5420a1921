def test_1(f):
    assert f(1) == 7


def test_2(f):
    assert f(0) == 0


def test_3(f):
    assert f(4) == 28


def test_4(f):
    assert f(52) == 364


def test_5(f):
    assert f(10) == 70

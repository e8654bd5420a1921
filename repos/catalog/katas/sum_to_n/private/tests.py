def test_1(f):
    assert f(1) == 1


def test_2(f):
    assert f(3) == 6


def test_3(f):
    assert f(10) == 55


def test_4(f):
    assert f(100) == 5050


def test_5(f):
    assert f(4) == 10

def test_1(f):
    assert f(4) == -4


def test_2(f):
    assert f(-9) == 9


def test_3(f):
    assert f(0) == 0


def test_4(f):
    assert f(1) == -1


def test_5(f):
    assert f(123) == -123

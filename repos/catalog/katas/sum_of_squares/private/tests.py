def test_1(f):
    assert f(1) == 1


def test_2(f):
    assert f(2) == 5


def test_3(f):
    assert f(3) == 14


def test_4(f):
    assert f(5) == 55


def test_5(f):
    assert f(10) == 385

def test_1(f):
    assert f(1) == 100


def test_2(f):
    assert f(0) == 0


def test_3(f):
    assert f(4) == 400


def test_4(f):
    assert f(52) == 5200


def test_5(f):
    assert f(10) == 1000

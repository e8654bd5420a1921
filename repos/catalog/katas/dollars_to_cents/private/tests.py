def test_1(f):
    assert f(1) == 100


def test_2(f):
    assert f(0) == 0


def test_3(f):
    assert f(6) == 600


def test_4(f):
    assert f(25) == 2500


def test_5(f):
    assert f(3) == 300

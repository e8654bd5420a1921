def test_1(f):
    assert f(1) == 60


def test_2(f):
    assert f(0) == 0


def test_3(f):
    assert f(5) == 300


def test_4(f):
    assert f(60) == 3600


def test_5(f):
    assert f(12) == 720

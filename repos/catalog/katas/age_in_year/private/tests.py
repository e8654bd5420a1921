def test_1(f):
    assert f(2000, 2020) == 20


def test_2(f):
    assert f(1990, 1990) == 0


def test_3(f):
    assert f(1950, 2000) == 50


def test_4(f):
    assert f(2010, 2024) == 14

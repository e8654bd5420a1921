def test_1(f):
    assert abs(f(3, 4) - 5.0) < 1e-9


def test_2(f):
    assert abs(f(5, 12) - 13.0) < 1e-9


def test_3(f):
    assert abs(f(8, 15) - 17.0) < 1e-9


def test_4(f):
    assert abs(f(0, 2) - 2.0) < 1e-9

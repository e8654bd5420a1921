def test_1(f):
    assert abs(f(2, 3) - 9.0) < 1e-9


def test_2(f):
    assert abs(f(1, 1) - 0.5) < 1e-9


def test_3(f):
    assert abs(f(10, 0) - 0.0) < 1e-9


def test_4(f):
    assert abs(f(4, 5) - 50.0) < 1e-9

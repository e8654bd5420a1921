def test_1(f):
    assert abs(f(100, 5, 1) - 5.0) < 1e-9


def test_2(f):
    assert abs(f(1000, 10, 2) - 200.0) < 1e-9


def test_3(f):
    assert abs(f(50, 0, 3) - 0.0) < 1e-9


def test_4(f):
    assert abs(f(200, 2, 5) - 20.0) < 1e-9

def test_1(f):
    assert abs(f(100, 10) - 90.0) < 1e-9


def test_2(f):
    assert abs(f(50, 50) - 25.0) < 1e-9


def test_3(f):
    assert abs(f(80, 0) - 80.0) < 1e-9


def test_4(f):
    assert abs(f(20, 100) - 0.0) < 1e-9


def test_5(f):
    assert abs(f(200, 25) - 150.0) < 1e-9

def test_1(f):
    assert abs(f(100, 10) - 110.0) < 1e-9


def test_2(f):
    assert abs(f(50, 0) - 50.0) < 1e-9


def test_3(f):
    assert abs(f(200, 25) - 250.0) < 1e-9


def test_4(f):
    assert abs(f(10, 100) - 20.0) < 1e-9

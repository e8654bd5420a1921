def test_1(f):
    assert abs(f(0) - 32.0) < 1e-9


def test_2(f):
    assert abs(f(100) - 212.0) < 1e-9


def test_3(f):
    assert abs(f(-40) - -40.0) < 1e-9


def test_4(f):
    assert abs(f(37) - 98.6) < 1e-9


def test_5(f):
    assert abs(f(10) - 50.0) < 1e-9

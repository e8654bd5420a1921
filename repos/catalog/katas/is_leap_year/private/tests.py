def test_1(f):
    assert f(2024) is True


def test_2(f):
    assert f(2023) is False


def test_3(f):
    assert f(1900) is False


def test_4(f):
    assert f(2000) is True


def test_5(f):
    assert f(2100) is False

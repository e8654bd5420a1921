def test_1(f):
    assert f('hello') == 'Hello'


def test_2(f):
    assert f('a') == 'A'


def test_3(f):
    assert f('python') == 'Python'


def test_4(f):
    assert f('zoo') == 'Zoo'

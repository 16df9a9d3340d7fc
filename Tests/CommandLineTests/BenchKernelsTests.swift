import Testing

/// `nibble bench weights` and `bench attention`: every type is measured, and what can't be is refused before memory is taken.
@Suite struct BenchKernelsTests {
  @Test func weightsOfEveryTypeAreMeasured() throws {
    let run = try Command.run(["bench", "weights", "--size", "1", "--width", "256", "--rows", "3", "--rounds", "1"])
    #expect(run.status == 0, "\(run.errors)")
    let rows = run.output.split(separator: "\n").dropFirst(2).map { $0.split(separator: " ") }
    #expect(rows.map { $0[0] } == ["f32", "bf16", "fp8_e4m3", "nvfp4"])
    // Nanoseconds a thousand weights; rates may round to 0.0 on a busy machine.
    #expect(rows.allSatisfy { $0.count == 5 && (Double($0[4]) ?? 0) > 0 })
  }

  @Test(arguments: [
    (["weights", "--weight-dtypes", "q4_0"], "'q4_0'; expected f32, bf16, fp8_e4m3, nvfp4"),
    (["weights", "--width", "100"], "expected --width"),
    (["weights", "--size", "1", "--width", "65536"], "expected --size of at least 16"),
    (["weights", "--rounds", "0"], "expected --rounds"),
    (["attention", "--attention-precision", "fast", "fast"], "found one of them twice"),
    (["attention", "--attention-precision", "half"], "'half' is invalid"),
    (["attention", "--contexts", "16000000", "--batch", "10000"], "--contexts 16000000 with --batch 10000 needs"),
  ])
  func refusesWhatCantBeMeasured(arguments: [String], sentence: String) throws {
    let run = try Command.run(["bench"] + arguments)
    #expect(run.status == 64)
    #expect(run.errors.contains(sentence), "\(run.errors)")
  }
}

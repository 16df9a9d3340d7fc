import ArgumentParser

struct BenchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measure this machine with Nibble's own code.",
    subcommands: [
      BenchEngineCommand.self, BenchSpeculationCommand.self, BenchAccuracyCommand.self, BenchDecode.self,
      BenchPrefill.self, BenchAttentionCommand.self, BenchWeightsCommand.self, BenchEncode.self,
      BenchBandwidthCommand.self,
    ])
}

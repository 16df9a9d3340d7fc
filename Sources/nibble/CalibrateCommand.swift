import ArgumentParser
import Checkpoints
import Engine
import KVQuantization
import ModelFamilies
import TextCodec

struct CalibrateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "calibrate",
    abstract: "Measure the ranges of a model's keys and values and write its KV scales.",
    discussion: """
      Writes kv_scales.json into the model's folder, where --kv-cache-scales auto finds it. The choices are those of nvfp4: the share \
      of block scales that would be subnormal or zero, and the relative L2 error of a round trip.
      """)

  @Argument(help: "The model's folder.")
  var model: String

  @Option(help: "A text file to run through the model (default: a built-in sample).")
  var text: String?

  @Option(help: "Where to write the scales (default: kv_scales.json in the model's folder).")
  var output: String?

  @Option(help: "Also draw the ranges of K and V of every layer into this SVG file.")
  var svg: String?

  @Option(help: "Tokens to run, at most.")
  var maxTokens = 4096

  @Option(help: "Room for magnitudes beyond those of the text, as a factor from 1 on.")
  var headroom = Calibration.defaultHeadroom

  @Flag(help: "Print the statistics, write nothing.")
  var dryRun = false

  @OptionGroup var threadsOption: ThreadsOption

  func validate() throws {
    guard maxTokens > 0 else { throw ValidationError("expected --max-tokens of at least 1, found \(maxTokens)") }
    guard (1...1024).contains(headroom) else {
      throw ValidationError("expected --headroom from 1 to 1024, found \(headroom)")
    }
  }

  func run() throws {
    let directory = try ModelLocation.resolve(model)
    let sample = try text.map { try Console.readFile($0) } ?? CalibrationText.sample
    let tokenizer = try Tokenizer(contentsOf: directory)
    var bar = ProgressBar("calibrating \(directory)")
    let hasDraftLayers = try Checkpoint(directory: directory).hasDraftLayers
    let runtime = try ModelRuntime(
      directory: directory, threadCount: threadsOption.threads, speculation: hasDraftLayers ? try Speculation() : nil)
    let tokens = tokenizer.encode(sample, addSpecialTokens: true, allowSpecial: true).prefix(maxTokens)
    let calibration = try Calibration(
      runtime: runtime, tokens: Array(tokens), headroom: headroom, progress: { bar.update($0) })

    Console.write(table(calibration))
    if let svg { try Console.writeFile(CalibrationDrawing(calibration).svg, to: svg) }
    guard !dryRun else { return }
    let path = output ?? "\(directory)/\(KVScaleSet.fileName)"
    try Console.writeFile(calibration.scales(source: path).json.serialized(pretty: true) + "\n", to: path)
    Console.error("wrote \(path), from \(calibration.tokenCount) tokens")
  }

  private func table(_ calibration: Calibration) -> String {
    var lines = [
      [
        "layer", "side", "amax", "p99.9", "p99", "p50", "outlier channels", "subnormal scales: none, /6, /448, /2688",
        "nvfp4 error: none, /2688",
      ]
    ]
    for (index, layer) in calibration.layers.enumerated() {
      for side in [layer.key, layer.value] {
        let shares = side.choices.map { ($0.subnormalScaleShare * 100).decimals(1) + "%" }
        let errors = [side.choices.first, side.choices.last].compactMap { $0 }.map {
          $0.relativeError.decimals(4)
        }
        lines.append([
          "\(index)", side.name, Double(side.amax).decimals(3),
          Double(side.percentiles.p999).decimals(3),
          Double(side.percentiles.p99).decimals(3),
          Double(side.percentiles.half).decimals(3), "\(side.outlierChannels.count)",
          shares.joined(separator: ", "), errors.joined(separator: ", "),
        ])
      }
    }
    let widths = lines[0].indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
    return lines.map { line in
      zip(line, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }.joined(separator: "  ") + "\n"
    }.joined()
  }
}
